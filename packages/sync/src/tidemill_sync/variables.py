"""The variables of the environment that sync reads."""

from tidemill_core.variables import Variable

TOKEN = "TIDEMILL_SYNC_TOKEN"  # noqa: S105 - the name of a variable
CONFIG = "TIDEMILL_SYNC_CONFIG"
VARIABLES = (
    Variable(name=CONFIG, text="YAML or JSON file of the sync that the handlers of cloud functions carry out."),
    Variable(
        name=TOKEN, text="Bearer token that `tidemill sync serve` asks for; unset means none is asked.", is_secret=True
    ),
)
