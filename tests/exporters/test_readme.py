"""The README's descriptions are JSON that the package recognises."""
from __future__ import annotations

import json
import re
import unittest

from support import EXPORTERS

from din_export import frameworks
from din_export.description import Description


class ReadmeTest(unittest.TestCase):
    def test_every_example_is_a_description_of_its_framework(self) -> None:
        text = (EXPORTERS / "README.md").read_text()
        found = set()
        for heading, block in re.findall(r"^### (\S+?),? .*?```json\n(.*?)```", text, re.S | re.M):
            description = Description(json.loads(block))
            module = frameworks.identify(description)
            self.assertEqual(module.NAME, heading)
            self.assertEqual(description.unread(set(description.hyperparameters)), [])
            for name in description.scopes:
                description.scope(name)
            found.add(module.NAME)
        self.assertEqual(found, {m.NAME for m in frameworks.MODULES} - {"canonical", "x-deeplearning"})

    def test_snippets_are_short(self) -> None:
        for block in re.findall(r"```python\n(.*?)```", (EXPORTERS / "README.md").read_text(), re.S):
            if "def dump" in block:
                self.assertLessEqual(len(block.splitlines()), 15)


if __name__ == "__main__":
    unittest.main()
