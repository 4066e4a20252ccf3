"""Flower's grid over a crew, without one: what goes in comes out, whoever works on it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedunlearn.core import SERVER
from fedunlearn.federation.engines.flower import cluster as clusters

if TYPE_CHECKING:
    from flwr.app import Message

    from fedunlearn.federation.engines.flower.grid import HospitalGrid


@pytest.fixture
def grid(tmp_path: Path) -> HospitalGrid:
    """Hospitals of which `west` is silent and `north` fails; the others reply, from another thread, what they got."""
    with clusters.environment(tmp_path), clusters.quiet():
        from flwr.app import Message

        from fedunlearn.federation.engines.flower.grid import HospitalGrid

        def give(message: Message) -> None:
            if (node := message.metadata.dst_node_id) == made.nodes["west"]:
                return
            reply = None if node == made.nodes["north"] else Message(message.content, reply_to=message)
            threading.Timer(0.05, made.reply, (message, reply, "lost")).start()

        made = HospitalGrid(("east", "north", "west"), give)
        return made


def asked(grid: HospitalGrid, site: str) -> Message:
    from flwr.app import ConfigRecord, RecordDict

    return grid.create_message(
        RecordDict({"to": ConfigRecord({"site": site})}), "train.ask", grid.nodes[site], ""
    )


def test_hospitals_and_the_server_are_its_nodes(grid: HospitalGrid) -> None:
    assert list(grid.nodes) == ["east", "north", "west", SERVER]
    assert len(set(grid.get_node_ids())) == 4 and grid.run.run_id == 1


def test_replies_and_failures_come_back_to_their_messages_and_silence_ends(grid: HospitalGrid) -> None:
    sent = [asked(grid, site) for site in ("east", "north", "west", SERVER)]
    replies = {message.metadata.src_node_id: message for message in grid.send_and_receive(sent, timeout=1.0)}
    assert set(replies) == {grid.nodes[site] for site in ("east", "north", SERVER)}
    assert replies[grid.nodes["north"]].error.reason == "lost"
    for site in ("east", SERVER):
        assert replies[grid.nodes[site]].content.config_records["to"]["site"] == site


def test_who_waits_is_woken(grid: HospitalGrid) -> None:
    threading.Timer(0.05, grid.wake).start()
    grid.wait(60.0)  # not that long
    assert list(grid.pull_messages(["unknown"])) == []
