"""What the checker finds: a fault of the declarations, where it is, how to change it, and the story that shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: the rule, the saga, the service and the function to change, the violation and its cure.

    `story`: the shortest interleaving that leads to it, one sentence a move; a static rule needs none.
    """

    rule: str
    saga: str
    service: str
    function: str
    message: str
    cure: str
    story: tuple[str, ...] = ()

    def __str__(self) -> str:
        after = f" ({'; '.join(self.story)})" if self.story else ""
        return f"{self.rule}: {self.message}{after}. {self.cure}."


@dataclass(frozen=True, slots=True)
class Cure:
    """What a counterexample's story is about: the function to change, its service, what is wrong, and the change."""

    function: str
    service: str
    message: str
    text: str

    def finding(self, rule: str, saga: str, story: tuple[str, ...]) -> Finding:
        """Return the finding of a saga's story."""
        return Finding(
            rule=rule,
            saga=saga,
            service=self.service,
            function=self.function,
            message=self.message,
            cure=self.text,
            story=story,
        )
