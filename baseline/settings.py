from common.training import settings


class Settings(settings.Settings):
    title = "Baseline"
    row = 10

    weight_decay: float = settings.setting(
        5e-4, "strength of the weight decay; the original's: 5e-4", least=0
    )
