"""The console: one process that reads any number of services, and shows in a browser where a saga is and what is stuck.

It stores no data: every page is read from the services through `toolkit.client`, and every change goes through them.
Only redrives, drops and submitted forms that are under way are kept, in memory.
"""

from toolkit.extras import require

require("console", "the console")
