from common.training.settings import RotationSettings


class Settings(RotationSettings):
    title = "OPT (GS)"
    row = 40
