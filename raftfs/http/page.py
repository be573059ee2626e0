"""The status page at ``/``: one self-contained document that refreshes itself from ``/v1/cluster``."""

from __future__ import annotations

from typing import Final

from aiohttp import web

_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>raftfs</title>
<style>
:root { color-scheme: light dark; --ink: #1c2430; --soft: #667085; --line: #e4e7ec; --card: #fff; --back: #f5f6f8;
  --good: #12805c; --bad: #b42318; --lead: #3538cd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2a3140; --card: #171c26;
  --back: #0e1219; --good: #47cd89; --bad: #f97066; --lead: #a4bcfd; } }
* { box-sizing: border-box }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back) }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem }
header { display: flex; align-items: baseline; gap: .75rem; flex-wrap: wrap; margin-bottom: 1.5rem }
h1 { font-size: 1.5rem; margin: 0; letter-spacing: -.01em }
#state { margin-left: auto; font-weight: 600 }
.soft { color: var(--soft) }
.good { color: var(--good) } .bad { color: var(--bad) } .lead { color: var(--lead); font-weight: 600 }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow-x: auto }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); margin-bottom: 1rem }
.facts div { padding: .9rem 1.1rem } .facts b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .65rem 1.1rem; border-top: 1px solid var(--line); white-space: nowrap }
th { border-top: 0; font-weight: 500; color: var(--soft); font-size: .85rem }
td.number, th.number { text-align: right }
footer { margin-top: 1rem; font-size: .85rem } a { color: inherit }
</style>
</head>
<body>
<main>
<header><h1>raftfs</h1><span class="soft" id="cluster"></span><span id="state" class="soft">asking…</span></header>
<section class="card facts">
<div><span class="soft">Revision</span><b id="revision">–</b></div>
<div><span class="soft">Term</span><b id="term">–</b></div>
<div><span class="soft">Leader</span><b id="leader">–</b></div>
<div><span class="soft">Reachable</span><b id="reachable">–</b></div>
</section>
<section class="card"><table>
<thead><tr><th>Node</th><th>Role</th><th>State</th><th class="number">Applied</th><th class="number">Lag</th>
<th class="number">Missing chunks</th><th>Address</th></tr></thead>
<tbody id="members"><tr><td colspan="7" class="soft">Waiting for the first answer.</td></tr></tbody>
</table></section>
<footer class="soft"><span id="when"></span> · <a href="/v1/cluster">JSON</a> · <a href="/metrics">metrics</a> ·
<a href="/readyz?verbose">readiness</a></footer>
</main>
<script>
const at = id => document.getElementById(id);
const say = (id, text, look) => { at(id).textContent = text; if (look !== undefined) at(id).className = look; };
const known = value => value === null || value === undefined ? "–" : value.toLocaleString();
function row(member) {
  const cells = [
    [member.id, ""], [member.role, member.role === "leader" ? "lead" : ""],
    [member.reachable ? "up" : "not reachable", member.reachable ? "good" : "bad"],
    [known(member.applied_index), "number"], [known(member.lag), "number"],
    [known(member.missing_chunks), "number"], [member.url, "soft"]];
  const line = document.createElement("tr");
  for (const [text, look] of cells) {
    const cell = document.createElement("td");
    cell.textContent = text; cell.className = look; line.append(cell);
  }
  return line;
}
async function refresh() {
  try {
    const answer = await fetch("/v1/cluster", {cache: "no-store", headers: {"Raftfs-Timeout": "3"}});
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail || answer.status);
    const up = body.members.filter(member => member.reachable).length;
    say("cluster", body.cluster_id); say("revision", known(body.revision)); say("term", known(body.term));
    say("leader", body.leader ? body.leader.id : "none"); say("reachable", up + " of " + body.members.length);
    const well = body.quorum && body.leader;
    if (!well) say("state", "no quorum", "bad");
    else if (up < body.members.length) say("state", "serving, with nodes missing", "bad");
    else say("state", "serving", "good");
    at("members").replaceChildren(...body.members.map(row));
    say("when", "As of " + new Date().toLocaleTimeString());
  } catch (error) { say("state", "no answer: " + error.message, "bad"); }
  setTimeout(refresh, 2000);
}
refresh();
</script>
</body>
</html>
"""


def page_response() -> web.Response:
    """The page. It loads nothing from elsewhere and says so to the browser."""
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return web.Response(text=_PAGE, content_type="text/html", charset="utf-8", headers=headers)
