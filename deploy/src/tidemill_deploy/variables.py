"""The variables of the environment that the main job's configurations read."""

from tidemill_core.variables import Variable

VARIABLES = (
    Variable(name="TIDEMILL_UPSTREAM_URL", text="The weather API of ``weather.yaml``; such as http://127.0.0.1:8123."),
)
