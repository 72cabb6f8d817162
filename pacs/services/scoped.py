"""The node as somebody sees it who may see a part of the archive only: everything else is not there (404).

What is looked for is narrowed in the one statement of the search; what is named is looked up first. Whoever may see
everything never comes here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.levels import Level, Scope
from pacs.domain.query import Condition, Page, Query
from pacs.domain.roles import Visible
from pacs.errors import NotFound
from pacs.services.instances import StoredInstance
from pacs.services.retrieve import Metadata, Retrieve
from pacs.services.search import Search

if TYPE_CHECKING:
    from pacs.node import Node

T = TypeVar("T")

STUDY_UID, OBJECT_UID = (BY_KEYWORD[word].tag for word in ("StudyInstanceUID", "SOPInstanceUID"))
ABSENT = "Nothing is stored here under this name."


class ScopedSearch:
    """Finds in a part of the archive."""

    def __init__(self, search: Search, visible: Visible) -> None:
        self._search, self._visible = search, visible

    def find(self, query: Query, reader: str = "") -> Page:
        """See Search.find."""
        return self._search.find(replace(query, visible=self._visible), reader)

    def count(self, query: Query) -> int:
        """See Search.count."""
        return self._search.count(replace(query, visible=self._visible))

    def rendered(self, render: Callable[[], T]) -> T:
        """See Search.rendered."""
        return self._search.rendered(render)

    def require(self, *, study_uid: str = "", sop_instance_uid: str = "") -> None:
        """Raise NotFound for a study outside, or for an object of one."""
        level, key = (
            (Level.STUDY, (STUDY_UID, study_uid)) if study_uid else (Level.INSTANCE, (OBJECT_UID, sop_instance_uid))
        )
        condition = Condition((key[0],), (key[1],))
        if not self.find(Query(level, (condition,), limit=1, parents=False, show_hidden=True)).rows:
            raise NotFound(ABSENT)


class ScopedRetrieve:
    """Gives out what is in a part of the archive."""

    def __init__(self, retrieve: Retrieve, search: ScopedSearch) -> None:
        self._retrieve, self._search = retrieve, search

    def locate(self, scope: Scope) -> list[StoredInstance]:
        """See Retrieve.locate."""
        self._search.require(study_uid=scope.study_uid)
        return self._retrieve.locate(scope)

    def metadata(self, scope: Scope) -> Metadata:
        """See Retrieve.metadata."""
        self._search.require(study_uid=scope.study_uid)
        return self._retrieve.metadata(scope)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._retrieve, name)  # these take what `locate` gave


class NodeInPart:
    """The node with `search` and `retrieve` narrowed; the rest is as it is, and its routes are closed or checked."""

    def __init__(self, node: "Node", visible: Visible) -> None:
        self._node = node
        self.search = ScopedSearch(node.search, visible)
        self.retrieve = ScopedRetrieve(node.retrieve, self.search)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)
