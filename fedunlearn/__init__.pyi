from fedunlearn.api.run import Run as Run, load_run as load_run
from fedunlearn.api.running import simulate as simulate
from fedunlearn.api.scenario import Scenario as Scenario
from fedunlearn.core import (
    FedunlearnError as FedunlearnError,
    InputError as InputError,
    Interrupted as Interrupted,
    RunError as RunError,
    SiteError as SiteError,
)

__version__: str
