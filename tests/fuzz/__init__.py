"""Everything that parses bytes from outside, given damaged ones. See docs/design/fuzzing.md."""
