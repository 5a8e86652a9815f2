"""Every setting: its value, default and meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queuectl import settings
from queuectl.view.wording import escaped
from queuectl.web.pages.frame import Page, Query
from queuectl.web.pages.look import Look

if TYPE_CHECKING:
    from queuectl.web.dashboard import Dashboard


def page(dashboard: Dashboard, _: Query) -> Page:
    """Every key: its value, default and meaning."""
    look = Look.take(dashboard)
    values = dashboard.settings()
    keys = [
        {
            "key": name,
            "value": getattr(values, name),
            "shown": settings.shown(getattr(values, name)),
            "default": getattr(settings.DEFAULTS, name),
            "shown_default": settings.shown(getattr(settings.DEFAULTS, name)),
            "meaning": key.meaning,
        }
        for name, key in settings.KEYS.items()
    ]
    path = escaped(str(dashboard.spool.root.config))
    broken = escaped(dashboard.spool.live.trouble or "")
    return Page("config", "Config", ("config",), look.frame | {"keys": keys, "path": path, "broken": broken})
