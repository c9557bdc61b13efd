from common.training import settings


class Settings(settings.Settings):
    title = "Baseline"
    row = 10
