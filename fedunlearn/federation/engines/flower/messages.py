"""The server half: asks go out as Flower messages, answers come back.

- A Flower node takes one message per 0.1 s. Here a node is not a hospital but a lane: the message names the
  hospital, a lane carries one message at a time, and there are more lanes than workers, so none waits for the poll.
- The worker itself answers when a task takes too long, counting from the task's own start. Only for a worker that
  cannot answer (a lost machine) does the server count, from when the message's turn came.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedunlearn import interrupts
from fedunlearn.core import RunError
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.engines.flower.simulation import Simulation
from fedunlearn.federation.engines.flower.worker import Errand, overdue, record, value

_POLL = 0.02  # seconds between looks at the grid
GRACE = 60.0  # seconds a worker may need to start, or to start again, before it begins with a task


@dataclass
class _Sent:
    """An ask in flight, the lane it took, and when its turn came as far as the server can tell."""

    ask: Ask
    lane: int
    since: float | None = None


class Messages:
    """Asks in a queue, as many of them in flight as there are lanes."""

    def __init__(self, simulation: Simulation, timeout: float, errand: Callable[[Ask], Errand]) -> None:
        self._simulation, self._timeout, self._errand = simulation, timeout, errand
        self._waiting: deque[Ask] = deque()
        self._sent: dict[str, _Sent] = {}
        self._lanes = deque(simulation.lanes)

    def submit(self, asks: Sequence[Ask]) -> None:
        """See `Link`."""
        self._waiting.extend(asks)
        self._push()

    def collect(self) -> Sequence[Answer]:
        """See `Link`.

        Raises:
            RunError: every worker is lost, and tasks still wait; or Flower stopped.
            Interrupted: a signal came.
        """
        while True:
            interrupts.check()
            if answers := self._pull() or self._late():
                self._push()
                return answers
            if self._waiting and not self._sent:
                raise RunError(f"all workers are lost, and {len(self._waiting)} tasks still wait for one")
            self._simulation.check()
            time.sleep(_POLL)

    def _push(self) -> None:
        from flwr.app import Message

        while self._waiting and self._lanes:
            ask, lane = self._waiting.popleft(), self._lanes.popleft()
            message = Message(record(self._errand(ask)), lane, "train.ask", ttl=4 * (self._timeout + GRACE))
            [number] = self._simulation.grid.push_messages([message])
            self._sent[number] = _Sent(ask, lane)
        for sent in list(self._sent.values())[: self._simulation.workers]:  # first sent, first served
            sent.since = sent.since or time.monotonic()

    def _pull(self) -> list[Answer]:
        answers = []
        for message in self._simulation.grid.pull_messages(list(self._sent)):
            sent = self._sent.pop(message.metadata.reply_to_message_id)
            self._lanes.append(sent.lane)
            if message.has_error():
                answers.append(Answer(sent.ask.ticket, None, last_line(message.error.reason or ""), 0.0, 0))
            else:
                answers.append(value(message.content))
        return answers

    def _late(self) -> list[Answer]:
        """Answer for workers that are lost; their lanes are given up."""
        long_ago = time.monotonic() - self._timeout - GRACE
        late = [number for number, sent in self._sent.items() if sent.since and sent.since < long_ago]
        return [overdue(self._sent.pop(number).ask, self._timeout) for number in late]


def last_line(reason: str) -> str:
    """The error itself, from Flower's reason, which is a whole traceback of Ray's."""
    text = re.sub(r"'>\s*$", "", reason)
    return text.splitlines()[-1].strip()
