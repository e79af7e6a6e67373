"""Safe YAML, bounded: no file makes the reading of it hang, overflow or run code."""

from __future__ import annotations

from typing import NamedTuple

import yaml

__all__ = ["BoundedLoader", "PythonObject"]

DEEPEST, MOST_NODES = 40, 20_000
"""Limits of a config: the largest that a run saves is some 12 deep and has some thousand nodes, aliases written out."""


class PythonObject(NamedTuple):
    """A Python object that a file asks for by ``!!python/<tag>``, as saved LazyConfigs do. It is not made."""

    tag: str


class BoundedLoader(yaml.SafeLoader):
    """Safe YAML, in which each of these is a ``yaml.YAMLError``.

    - A key that is given twice; YAML silently takes the last one.
    - A node that contains itself by an alias, more levels than ``DEEPEST``, and more nodes than ``MOST_NODES``, where
      what an alias stands for counts each time: a few lines of aliases of aliases are billions of nodes otherwise.
    - A value that its tag cannot be made of, as in ``!!int x`` or the date ``2020-99-99``.
    """

    def __init__(self, stream):
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes = {}  # of finished nodes, by id

    def compose_node(self, parent, index):
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise yaml.composer.ComposerError(None, None, "found an alias inside of what it stands for", mark)
            self._count(self._sizes[id(node)], mark)
            return node
        before, self._depth = self._nodes, self._depth + 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"found more than {DEEPEST} levels", mark)
        self._count(1, mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._nodes - before
        return node

    def _count(self, nodes, mark):
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            reason = f"found more than {MOST_NODES} values, those that aliases (*name) repeat counted each time"
            raise yaml.composer.ComposerError(None, None, reason, mark)

    def construct_object(self, node, deep=False):
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            value = node.value if isinstance(node.value, str) else "this"
            reason = f"cannot make {node.tag.rsplit(':', 1)[-1]} of {value[:50]!r}"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from error

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int, float, bool)) and key in seen:
                reason = f"the key {key} is given twice in one mapping"
                raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark)
            if isinstance(key, (str, int, float, bool)):
                seen.add(key)
        return super().construct_mapping(node, deep)


BoundedLoader.add_constructor("tag:yaml.org,2002:python/tuple", BoundedLoader.construct_yaml_seq)
BoundedLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, tag, node: PythonObject(tag))
