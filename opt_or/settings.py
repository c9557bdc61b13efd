"""The method's settings, its title, and its place in tables."""

from common.training.settings import RotationSettings


class Settings(RotationSettings):
    title = "OPT (OR)"
    row = 90
