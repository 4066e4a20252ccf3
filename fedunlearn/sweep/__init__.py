"""A sweep: one scenario run once for every combination of some of its values, and one table of all of it.

A scenario's ``sweep`` block names keys as ``--set`` does, each with its values::

    sweep:
      requests.0.patients.fraction: [0.05, 0.1, 0.3]
      training.augmentation: [none, flips_crops]

Every combination is a *cell*: an ordinary scenario without a ``sweep``, and an ordinary run folder ``cells/<slug>`` in
the sweep's own, beside ``sweep.json`` (which cells there are) and ``summary.parquet``. Cells that are finished are not
run again, so that a sweep goes on where it was interrupted.
"""
