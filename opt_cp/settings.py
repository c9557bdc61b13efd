from common.training.settings import RotationSettings


class Settings(RotationSettings):
    title = "OPT (CP)"
    row = 70

    widths: tuple[int, ...] | None = (32, 64, 128, 128)
