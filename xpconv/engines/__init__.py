"""The engines: each folder implements primitives and knows nothing of the others. README.md says how to add one."""
