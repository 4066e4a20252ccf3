"""Flower's grid over a crew of workers: messages go in and come out, whoever works on them.

A node of the grid is a hospital, or the server where it is asked for work on its own images. Which worker plays it, and
on which machine, is the crew's business.
"""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Iterable, Sequence

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedunlearn.core import SERVER, SiteId

_FAILED = 0  # Flower's code for what has none


class HospitalGrid(Grid):
    """Messages to hospitals, and their replies. Pushed and pulled by one thread, worked on by another.

    Args:
        sites: the hospitals.
        give: is given every message that is pushed.
    """

    def __init__(self, sites: Sequence[SiteId], give: Callable[[Message], None]) -> None:
        names = (*sites, SERVER)
        self.nodes = {name: SUPERLINK_NODE_ID + 1 + number for number, name in enumerate(names)}
        self._give = give
        self._news: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._replies: dict[str, Message] = {}
        # As Flower does in the process of a ServerApp: messages take their sender from it.
        TaskIdentity.task_id, TaskIdentity.node_id = 1, SUPERLINK_NODE_ID
        self.set_run(Run.create_empty(run_id=1))

    def set_run(self, run: Run) -> None:
        """Note the run that messages are of."""
        self._run, TaskIdentity.run_id = run, run.run_id

    @property
    def run(self) -> Run:
        """The run that messages are of."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """The hospitals, and the server, in their order."""
        return list(self.nodes.values())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See Flower's `Grid`."""
        sent = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid.uuid4())  # where Flower's own grids write it
            self._give(message)
            sent.append(message.metadata.message_id)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See Flower's `Grid`."""
        while not self._news.empty():
            self._note(self._news.get())
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def wait(self, seconds: float) -> None:
        """Wait until there is a reply, or something else has happened, but no longer than so many seconds."""
        try:
            self._note(self._news.get(timeout=seconds))
        except queue.Empty:
            return

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """See Flower's `Grid`."""
        names, found = set(self.push_messages(messages)), list[Message]()
        end = None if timeout is None else time.monotonic() + timeout
        while names and (end is None or time.monotonic() < end):
            self.wait(0.1 if end is None else max(0.0, min(0.1, end - time.monotonic())))
            new = list(self.pull_messages(names))
            names -= {message.metadata.reply_to_message_id for message in new}
            found += new
        return found

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See Flower's `Grid`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def reply(self, message: Message, reply: Message | None, reason: str) -> None:
        """What came of a message: a reply, or why there is none."""
        self._news.put(reply or Message(Error(_FAILED, reason), reply_to=message))

    def wake(self) -> None:
        """Let `wait` return: something has happened that is no reply."""
        self._news.put(None)

    def _note(self, reply: Message | None) -> None:
        if reply is not None:
            self._replies[reply.metadata.reply_to_message_id] = reply
