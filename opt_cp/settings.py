from common.training.settings import RotationSettings


class Settings(RotationSettings):
    title = "OPT (CP)"
    row = 70
    cnn_widths = (32, 64, 128, 128)
