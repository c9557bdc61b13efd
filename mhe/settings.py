from common.training import settings


class Settings(settings.Settings):
    title = "MHE"
    row = 30

    model: str = settings.setting(
        "half_mhe",
        "the energy: of all neurons and their opposites, or of the neurons alone",
        choices=("half_mhe", "mhe"),
    )
    power: str = settings.setting(
        "2",
        "the power of the distances between neurons, or (a0 to a2) of the angles; 0: the logarithm",
        choices=("0", "1", "2", "a0", "a1", "a2"),
    )
