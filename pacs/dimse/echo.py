"""C-ECHO (PS3.7 9.1.5)."""

from pacs.dimse import command
from pacs.dimse.operation import Operation
from pacs.dimse.status import Status


class Echo(Operation):
    """Answers that we are here and that our loop turns."""

    def end(self) -> None:
        self.link.send(self.context, [(command.response(self.request, Status.SUCCESS), None)])
        self.link.finish(self, Status.SUCCESS)
