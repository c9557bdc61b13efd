from common.training.settings import RotationSettings


class Settings(RotationSettings):
    title = "OPT (LS)"
    row = 60
