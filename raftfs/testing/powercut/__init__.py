"""Power cuts for real clusters. A seed and a number of rounds come in; three nodes run, each on a file system of ours
that knows what was synced, clients work, and the power goes at random moments; what was not synced by then is lost or
torn. What the clients saw goes to the nemesis's judge, and a verdict comes out. It needs root, Linux and FUSE. It may
never give back what a real disk could not have kept, nor lose what was synced. ``run`` is where it begins; it is not
imported here, as every life of a disk is a process that imports this package.
"""
