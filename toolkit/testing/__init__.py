"""For tests of a team's own sagas: worlds, simulations, single steps, and outside systems whose failures are scripted.

The names below are imported on first use: pytest loads this package in every project that has the toolkit.
"""

TYPE_CHECKING = False  # as mypy and editors know it

if TYPE_CHECKING:
    from toolkit.testing.clock import NOON, ManualClock
    from toolkit.testing.outside_system import NoAnswerError, Outcome, OutsideSystem
    from toolkit.testing.samples import sample
    from toolkit.testing.scenario import Scenario
    from toolkit.testing.simulation.run import SimulatedSagas
    from toolkit.testing.simulation.seeds import simulate
    from toolkit.testing.single_step import run_step, step_session
    from toolkit.testing.soundness import assert_sound
    from toolkit.testing.world.saga_world import SagaWorld

__all__ = [
    "NOON",
    "ManualClock",
    "NoAnswerError",
    "Outcome",
    "OutsideSystem",
    "SagaWorld",
    "Scenario",
    "SimulatedSagas",
    "assert_sound",
    "run_step",
    "sample",
    "simulate",
    "step_session",
]

#: The module of each public name; the imports above declare the same to mypy and to editors.
_HOMES = {
    "NOON": "clock",
    "ManualClock": "clock",
    "NoAnswerError": "outside_system",
    "Outcome": "outside_system",
    "OutsideSystem": "outside_system",
    "SagaWorld": "world.saga_world",
    "Scenario": "scenario",
    "SimulatedSagas": "simulation.run",
    "assert_sound": "soundness",
    "run_step": "single_step",
    "sample": "samples",
    "simulate": "simulation.seeds",
    "step_session": "single_step",
}
#: Databases of tests are files of SQLite.
_EXTRAS = dict.fromkeys(("SagaWorld", "Scenario", "SimulatedSagas", "simulate", "step_session"), "sqlite")

if not TYPE_CHECKING:  # to mypy a module with `__getattr__` has every name
    from toolkit.lazy_names import on_first_use

    __getattr__, __dir__ = on_first_use(__name__, _HOMES, _EXTRAS)
