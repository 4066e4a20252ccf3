"""What every strategy promises, ours and a user's alike, and how it is found out whether it keeps it.

A promise is a function that runs a strategy on a toy federation (`toy`, `hospitals`, `cases`) and raises `Broken`.
Tests try all of `PROMISES` on every strategy of ours; `fedunlearn check-strategy` tries them on anybody's.
"""

from __future__ import annotations

from fedunlearn.contract import asking, form, kinds, results, turns
from fedunlearn.contract.promise import Broken, Promise

__all__ = ["PROMISES", "Broken", "Promise"]

PROMISES = (
    Promise(form.frozen_hashable_and_constructible),
    Promise(form.the_file_is_named_as_the_strategy),
    Promise(form.the_constructor_only_stores),
    Promise(form.yaml_round_trip),
    Promise(form.every_number_has_a_range_that_is_kept),
    Promise(form.what_tune_searches_lies_in_the_range),
    Promise(form.documented),
    Promise(form.the_file_is_short_and_imports_only_what_it_may),
    Promise(form.claims_a_granularity),
    Promise(results.names_shapes_dtypes_and_finite, rounding=True),
    Promise(results.batch_norm_stays_valid, rounding=True),
    Promise(results.a_hospital_may_be_left_with_nothing),
    Promise(results.same_seed_same_bits, rounding=True),
    Promise(results.inputs_and_global_rngs_stay_as_they_were),
    Promise(results.every_pass_through_a_network_is_counted),
    Promise(results.order_of_hospitals_does_not_matter, rounding=True),
    Promise(results.exact_means_equal_to_retraining, rounding=True),
    Promise(results.nearer_to_the_retrained_model_than_the_original, rounding=True),
    Promise(results.better_than_a_guess_before_recovery, rounding=True),
    Promise(results.if_it_diverges_it_does_so_without_an_error, thorough=True),
    Promise(results.works_in_the_middle_of_training),
    Promise(results.what_tune_searches_has_no_part_in_its_own_training),
    Promise(asking.declared_is_used),
    Promise(asking.never_asks_a_leaving_site_unless_declared),
    Promise(asking.sums_are_enough_unless_each_reply_is_declared, rounding=True),
    Promise(asking.tasks_cross_the_wire),
    Promise(asking.a_silent_hospital_is_an_error, variants=tuple(asking.FAULTS)),
    Promise(results.what_it_has_in_hand_is_what_it_would_have_come_to, thorough=True),
    Promise(
        kinds.works_on_every_kind_unless_it_declares_class_labels, rounding=True, variants=tuple(kinds.TOYS)
    ),
    Promise(turns.works_where_hospitals_take_turns_unless_it_declares_everyone, thorough=True),
    Promise(asking.closing_it_midway_leaves_nothing_behind),
)
