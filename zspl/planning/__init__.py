"""What a benchmark will take, told before anything runs: `zspl plan`.

`rows` lists the stage instances of a params.yaml with their work, `rates` says what a unit of work
takes on a device and how that is known, `disk` counts bytes, `measure` times a miniature of the
benchmark on the device at hand, and `table` prints. DVC is not asked what is up to date.
"""
