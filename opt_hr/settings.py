from common.training.settings import RotationSettings


class Settings(RotationSettings):
    title = "OPT (HR)"
    row = 50
