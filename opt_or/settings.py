from common.training.settings import RotationSettings


class Settings(RotationSettings):
    title = "OPT (OR)"
    row = 90
