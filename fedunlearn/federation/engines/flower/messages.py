"""The server half: asks go out as Flower messages, answers come back.

The worker itself answers when a task takes too long, counting from the task's own start. What a round asks of many
hospitals about one model is made a record of once, and small tasks travel in bundles, those of a stack in one message;
answers are one for each ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from flwr.app import ArrayRecord, Message
from torch import Tensor

from fedunlearn import interrupts
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.federation.engines.flower.bundles import Bundles
from fedunlearn.federation.engines.flower.recent import ROOM, Recent
from fedunlearn.federation.engines.flower.session import Session
from fedunlearn.federation.engines.flower.worker import Errand, record, recorded, value
from fedunlearn.federation.engines.machines import Machine
from fedunlearn.federation.engines.stacks import Stacks
from fedunlearn.weights import nbytes

_LOOK = 0.2  # seconds between looks at signals


class Messages:
    """Asks in a queue, few more messages on their way than there are workers: a message holds models once more."""

    def __init__(self, session: Session, errand: Callable[[tuple[Ask, ...]], Errand]) -> None:
        self._session, self._grid, self._errand = session, session.grid, errand
        self._recent: Recent[tuple[Sequence[Tensor], ArrayRecord]] = Recent(ROOM)
        self._bundles, self._stacks = Bundles(), Stacks(session.federation)
        self._sent: dict[str, tuple[Ask, ...]] = {}

    def submit(self, asks: Sequence[Ask]) -> None:
        """See `Link`."""
        self._bundles.add([ask for ask in asks if not self._stacks.add(ask)])
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
            answers = self._pull()
            self._push(settled=not answers)  # before anybody looks at them: workers need not wait for that
            if answers:
                return answers
            self._grid.wait(_LOOK)

    @property
    def machines(self) -> Sequence[Machine]:
        """See `Link`."""
        return self._session.machines

    def _push(self, settled: bool = False) -> None:
        self._bundles.share = room = self._session.room
        while len(self._sent) < room and (asks := self._next(settled)):
            # To the first of them. One of an unknown name is the server's error, which the worker tells as any other.
            node = self._grid.nodes.get(asks[0].site, 0)
            [number] = self._grid.push_messages(
                [Message(record(self._errand(asks), self._recorded), node, "train.ask")]
            )
            self._sent[number] = asks

    def _next(self, settled: bool) -> tuple[Ask, ...]:
        """What to send next; ``settled``, nobody may add to stacks before another answer has come.

        Then those that are not full go as well, but only as fast as somebody idles.
        """
        if asks := self._stacks.full():
            return asks
        if len(self._bundles):
            return self._bundles.take()
        return self._stacks.rest() if settled and len(self._sent) < self._session.workers else ()

    def _recorded(self, arrays: Mapping[str, Tensor]) -> ArrayRecord:
        key = tuple((name, id(array)) for name, array in arrays.items())
        return self._recent.get(key, nbytes(arrays), lambda: (tuple(arrays.values()), recorded(arrays)))[1]

    def _pull(self) -> list[Answer]:
        answers = list[Answer]()
        for message in self._grid.pull_messages(list(self._sent)):
            asks = self._sent.pop(message.metadata.reply_to_message_id)
            if not message.has_error():
                answers += self._answered(asks, value(message.content))
            elif len(asks) > 1:
                self._bundles.again(asks, alone=True)
            else:
                answers.append(Answer(asks[0].ticket, None, message.error.reason, 0.0, 0))
        return answers

    def _answered(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> Sequence[Answer]:
        """The answers to a bundle, in the order of its asks; what was not begun travels again."""
        for ask, answer in zip(asks, answers, strict=False):
            self._bundles.took(ask, answer)
        self._bundles.again(asks[len(answers) :], alone=False)
        return answers
