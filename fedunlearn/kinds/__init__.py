"""Kinds of task: one folder each, found by its name (`fedunlearn.core.kinds`).

A kind brings, each in a file of its own:

- ``__init__.py``, ``FACTS``: what anybody may ask (`fedunlearn.core.kinds.Facts`);
- ``learnt.py``, ``LEARNT``: what training minimises and what is kept of answers (`fedunlearn.learning.kinds.Learnt`);
- ``scored.py``, ``SCORED``: how answers are read, measured and judged (`fedunlearn.scoring.kinds.Scored`);
- ``words.py``, ``WORDS``: what tables and sentences call it (`fedunlearn.results.kinds.Words`).

To add one, write such a folder; nothing else has to know.
"""
