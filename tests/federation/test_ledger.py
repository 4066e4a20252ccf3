"""What a round costs, worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

from fedunlearn.core import SERVER, LocalTraining, Reply, Select, SiteId
from fedunlearn.federation.engines import Answer
from fedunlearn.federation.jobs import Label, Round
from fedunlearn.federation.ledger import Ledger
from fedunlearn.learning.tasks import Fit

LABEL = Label("unlearn", "some", "puf", 7)
WEIGHTS = {"w": torch.zeros(10), "n": torch.zeros((), dtype=torch.int64)}  # 10 x 4 bytes + 8 bytes


def answer(ticket: int, seconds: float, images: int, machine: str = "") -> Answer:
    return Answer(ticket, Reply(WEIGHTS, images, {"loss": torch.zeros(2)}), None, seconds, images, machine)


def sizes(answers: Mapping[SiteId, Answer]) -> dict[SiteId, int]:
    """What the driver says it received: 48 bytes of weights and 8 of losses from each."""
    return dict.fromkeys(answers, 48 + 8)


def test_a_round_is_the_sum_over_its_hospitals() -> None:
    ledger = Ledger()
    ledger.stores(LABEL, 1234)
    asks = {
        site: Fit(WEIGHTS, Select(), LocalTraining(epochs), 1) for site, epochs in (("north", 2), ("east", 5))
    }
    answers = {"north": answer(0, 1.5, 30), "east": answer(1, 0.5, 12)}
    ledger.round(Round(LABEL, 0, asks, answers, sizes(answers), 0.25))
    ledger.end(LABEL, 1, 0.125)
    first, last = ledger.table().to_dict("records")
    assert (first["sites"], first["down_bytes"], first["up_bytes"]) == (2, 2 * 48, 2 * (48 + 8))
    assert (first["site_seconds"], first["server_seconds"], first["images"]) == (2.0, 0.25, 42)
    assert (first["epochs"], last["epochs"]) == (5, 0)
    # what the server did after the last replies is a row without hospitals
    assert (last["round"], last["sites"], last["server_seconds"]) == (1, 0, 0.125)
    assert first["stored_bytes"] == last["stored_bytes"] == 1234


def test_what_the_server_does_itself_is_its_own_time_and_moves_no_bytes() -> None:
    ledger = Ledger()
    task = Fit(WEIGHTS, Select(), LocalTraining(), 1)
    answers = {"north": answer(0, 1.5, 30), SERVER: answer(1, 0.5, 12)}
    ledger.round(Round(LABEL, 0, {"north": task, SERVER: task}, answers, sizes(answers), 0.25))
    alone = {SERVER: answer(2, 0.5, 12)}
    ledger.round(Round(LABEL, 1, {SERVER: task}, alone, sizes(alone), 0.25))
    both, own = ledger.table().to_dict("records")
    assert (both["sites"], both["down_bytes"], both["up_bytes"]) == (1, 48, 48 + 8)
    assert (both["site_seconds"], both["server_seconds"], both["images"]) == (1.5, 0.75, 42)
    assert (own["sites"], own["down_bytes"], own["up_bytes"]) == (0, 0, 0)
    assert (own["site_seconds"], own["server_seconds"], own["images"]) == (0.0, 0.75, 12)


def test_it_tells_who_worked_where_and_how_much() -> None:
    """The server's own work is no hospital's; rounds of an older version, which do not say where, count nowhere."""
    ledger, task = Ledger(), Fit(WEIGHTS, Select(), LocalTraining(), 1)
    places = {"north": "node2", "east": "head", SERVER: "head"}
    answers = {site: answer(n, 1.0, 1, machine) for n, (site, machine) in enumerate(places.items())}
    asks = dict.fromkeys(places, task)
    for number in range(2):
        ledger.round(Round(LABEL, number, asks, answers, sizes(answers), 0.0))
    first, *_ = ledger.table().to_dict("records")
    assert first["machines"] == ("node2", "head")
    assert ledger.tasks() == {"node2": 2, "head": 2}
    old = [{name: value for name, value in first.items() if name != "machines"}]
    ledger.recall(LABEL, json.loads(json.dumps(old)))
    assert ledger.tasks() == {} and ledger.table()["machines"].tolist() == [()]


def test_the_table_does_not_depend_on_the_order_in_which_rounds_end() -> None:
    rounds = [
        Round(Label("unlearn", "some", name, seed), 0, {}, {}, {}, 0.0) for name in "ab" for seed in (1, 2)
    ]
    forth, back = Ledger(), Ledger()
    for one in rounds:
        forth.round(one)
    for one in reversed(rounds):
        back.round(one)
    assert forth.table().equals(back.table())


def test_what_tuning_cost_is_a_row_of_its_own() -> None:
    ledger = Ledger()
    ledger.tuned("puf", 7, trials=20, site_seconds=31.5, images=4000, bytes=123)
    (row,) = ledger.table().to_dict("records")
    assert (row["phase"], row["request"], row["strategy"], row["round"]) == ("tune", "", "puf", 20)
    assert (row["site_seconds"], row["images"], row["down_bytes"], row["sites"]) == (31.5, 4000, 123, 0)


def test_what_is_known_of_a_procedure_survives_as_json_under_any_label() -> None:
    """Taken from another run, the same work may have another name; all else of its rows is as it was."""
    before, after = Ledger(), Ledger()
    before.stores(LABEL, 1234)
    task, answers = Fit(WEIGHTS, Select(), LocalTraining(), 1), {"north": answer(0, 1.5, 30)}
    for number in range(2):
        before.round(Round(LABEL, number, {"north": task}, answers, sizes(answers), 0.1))
    before.end(LABEL, 2, 0.125)
    known = json.loads(json.dumps(before.known(LABEL)))
    after.recall(LABEL, known)
    assert after.table().equals(before.table())
    other = Label("unlearn", "other", "puf-2", 8)
    after.recall(other, known)
    rows = after.table()
    rows = rows[rows["strategy"] == "puf-2"].reset_index(drop=True)
    assert rows.equals(before.table().assign(request="other", strategy="puf-2", seed=8))


def test_what_is_recalled_twice_counts_once() -> None:
    ledger = Ledger()
    ledger.round(Round(LABEL, 0, {}, {}, {}, 0.0))
    ledger.recall(LABEL, json.loads(json.dumps(ledger.known(LABEL))))
    ledger.recall(LABEL, json.loads(json.dumps(ledger.known(LABEL))))
    assert len(ledger.table()) == 1
    ledger.recall(LABEL, None)
    assert len(ledger.table()) == 0
