"""The properties of this GPU as cuDNN describes them, for building its plans on machines without one.

    python bench/gpu_device.py device.json

The file holds what `cudnn.create_device_properties` is given in the tests.
"""

from __future__ import annotations

import json
import sys

from xpconv.atomic import replacing


def main() -> None:
    import cudnn

    text = cudnn.create_device_properties(0).serialize()
    text = text.decode() if isinstance(text, bytes) else "".join(map(chr, text)) if isinstance(text, list) else text
    properties = json.loads(text)
    with replacing(sys.argv[1]) as beside:
        beside.write_text(json.dumps(properties, indent=1) + "\n")
    name = properties.get("deviceName", "unnamed")
    print(f"{str(name).strip(chr(0))}, cuDNN {cudnn.backend_version()}, frontend {cudnn.__version__}")


if __name__ == "__main__":
    main()
