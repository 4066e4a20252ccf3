"""The erasure record: what a hospital can show about a request, signed, without naming anybody it is about.

There are two parts. The *record* is for the hospital, the data protection officer and the authority: it has what the
simulation knows of the request, of every model that saw the data and of what was found of the remedies, and blanks for
what only people know. The *slip* stays at the hospital: it says who the record's references are. Once a slip is
destroyed, who has only the record cannot tell any more who they were, and the record can still be verified. The run
folder itself knows its patients (`fedunlearn.results.contents.OF_PATIENTS`), until they are purged from it (`purge`):
then `residue` finds what is left, and by `tombstones` is refused what comes back.
"""
