"""What stands in a cell of a table of which nothing is known: words of programs, and words of people."""

from __future__ import annotations

_WORDS = r"""
na n/a n.a. #n/a #na <na> nan -nan -nan(ind) nan(ind) nat none null (null) nil \n na_character_ pd.na ? .
1.#ind -1.#ind 1.#qnan -1.#qnan #null! #value! #ref! #div/0! #name? #num! #spill!
#nv #bezug! #wert! #zahl! #valeur! #nombre!
"""
MISSING = frozenset(_WORDS.split()) | {"", "#n/a n/a"}
"""What programs write where a value is missing, without regard to case."""

_PEOPLES = """
-, --, ---, –, —, _, xxx, x.x., n.n., n.d., k.a., tbd, tba, unknown, unbekannt, unnamed, undefined, unspecified,
unlabeled, unlabelled, missing, anonymous, anonymized, anonymised, anon, anonym, anonymous patient, no name, noname,
not available, not applicable, not known, no id, noid, (blank)
"""
NOBODY = frozenset(word.strip() for word in _PEOPLES.split(","))
"""What people write where they do not know, or must not say, without regard to case; it may be a name, too."""
