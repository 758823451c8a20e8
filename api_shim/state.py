"""What the API keeps beside the services, once per process."""

from __future__ import annotations

from functools import partial
from typing import Final

from api_shim.announcing import Announcer
from api_shim.answers import Answers
from api_shim.auth import Attempts
from api_shim.orders import Orders
from api_shim.workshop import Workshop
from core import outbox
from core.health import Health, checks_of
from core.netguard import Netguard
from core.services import Services
from matcher import marking, sealing
from matcher.decode import Decoders
from matcher.sealing import AccountKeys

DECODERS: Final = 2
"""Worker processes that decode pictures, and as many that mark them or look for marks, which takes longer."""


class ApiState:
    def __init__(self, services: Services) -> None:
        self.services = services
        self.answers = Answers(services)
        self.announcer = Announcer(partial(outbox.drain, services))
        self.attempts = Attempts(services.clock)
        self.health = Health(checks_of(services))
        self.netguard = Netguard(services.settings.allow_networks)
        self.decoders = Decoders(DECODERS)
        self.keys = AccountKeys(services, partial(self.decoders.run, sealing.new_key))
        self.markers = Decoders(DECODERS, marking.LIMITS)
        self.workshop = Workshop(self.markers)
        self.orders = Orders(services, self.keys, self.markers)

    def close(self) -> None:
        self.answers.close()
        self.announcer.close()
        self.workshop.close()
        self.orders.close()
        self.markers.close()
        self.decoders.close()
