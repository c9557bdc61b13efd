"""The method's settings, its title, and its place in tables."""

import dataclasses

from common.training.settings import RotationSettings


@dataclasses.dataclass(frozen=True)
class Settings(RotationSettings):
    title = "OPT (LS)"
    row = 60
