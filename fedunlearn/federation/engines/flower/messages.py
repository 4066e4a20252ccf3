"""The server half: asks go out as Flower messages, answers come back.

The worker itself answers when a task takes too long, counting from the task's own start. What a round asks of many
hospitals about one model is made a record of once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from flwr.app import ArrayRecord, Message
from torch import Tensor

from fedunlearn import interrupts
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.engines.flower.recent import ROOM, Recent
from fedunlearn.federation.engines.flower.session import Session
from fedunlearn.federation.engines.flower.worker import Errand, record, recorded, value
from fedunlearn.federation.engines.machines import Machine
from fedunlearn.weights import nbytes

_LOOK = 0.2  # seconds between looks at signals


class Messages:
    """Asks in a queue, few more of them on their way than there are workers: a message holds models once more."""

    def __init__(self, session: Session, errand: Callable[[Ask], Errand]) -> None:
        self._session, self._grid, self._errand = session, session.grid, errand
        self._recent: Recent[tuple[Sequence[Tensor], ArrayRecord]] = Recent(ROOM)
        self._waiting: deque[Ask] = deque()
        self._sent: dict[str, Ask] = {}

    def submit(self, asks: Sequence[Ask]) -> None:
        """See `Link`."""
        self._waiting.extend(asks)
        self._push()

    def collect(self) -> Sequence[Answer]:
        """See `Link`.

        Raises:
            RunError: the workers' cluster is gone.
            Interrupted: a signal came.
        """
        while True:
            interrupts.check()
            self._session.check()
            self._push()
            if answers := self._pull():
                return answers
            self._grid.wait(_LOOK)

    @property
    def machines(self) -> Sequence[Machine]:
        """See `Link`."""
        return self._session.machines

    def _push(self) -> None:
        while self._waiting and len(self._sent) < self._session.room:
            ask = self._waiting.popleft()
            # A hospital of an unknown name is the server's error, which the worker tells as any other.
            node = self._grid.nodes.get(ask.site, 0)
            [number] = self._grid.push_messages(
                [Message(record(self._errand(ask), self._recorded), node, "train.ask")]
            )
            self._sent[number] = ask

    def _recorded(self, arrays: Mapping[str, Tensor]) -> ArrayRecord:
        key = tuple((name, id(array)) for name, array in arrays.items())
        return self._recent.get(key, nbytes(arrays), lambda: (tuple(arrays.values()), recorded(arrays)))[1]

    def _pull(self) -> list[Answer]:
        answers = []
        for message in self._grid.pull_messages(list(self._sent)):
            ask = self._sent.pop(message.metadata.reply_to_message_id)
            if message.has_error():
                answers.append(Answer(ask.ticket, None, message.error.reason, 0.0, 0))
            else:
                answers.append(value(message.content))
        return answers
