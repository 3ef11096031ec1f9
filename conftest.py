"""What every test run shares: the profiles of the property tests.

``pytest --hypothesis-profile=night`` takes more examples; ``mutate`` is for ``just mutate``.
"""

import signal

from hypothesis import settings

# A parent that ignores SIGINT (a job in the background of a script) hands that on. Dagster then puts the same
# handler back for SIGTERM after each run, and the helpers that it stops by SIGTERM never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Property tests judge results, not speed: a loaded machine must not fail them.
settings.register_profile("tidemill", deadline=None)
settings.register_profile("night", settings.get_profile("tidemill"), max_examples=2_000)
# The same examples in every run, or the list of survivors would change by itself.
settings.register_profile("mutate", settings.get_profile("tidemill"), derandomize=True, database=None)
settings.load_profile("tidemill")
