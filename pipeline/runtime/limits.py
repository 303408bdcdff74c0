"""Limits of all inputs (docs/limits.md). The limits are far above what real data and models need;
raising a limit changes no result."""

MESSAGE = 600  # characters of a whole message
WORD = 160  # characters of a word in a message, such as a path

# Pictures of a data set, and of the image sets that `measure` reads.
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")  # Pillow's names
PICTURE_BYTES = 128 * 2**20  # size of an encoded picture
PICTURE_PIXELS = 2**26  # width × height, 67 million
PICTURE_ASPECT = 20  # longer side / shorter side

YAML_BYTES = 2**20  # size of a params file
CODES = 2**16 - 1  # codes of a tokenizer: the token cache stores a code, or [MASK], in two bytes
IMAGES = 10**8  # images or samples in a set
SEED = 2**53 - 1  # a larger integer may change when a program reads it from CSV or JSON
LARGEST = 1e30  # largest float param, such as a weight or a rate
SMALLEST = 1e-12  # smallest float param that must be positive

CHECKPOINTS = 2  # checkpoints kept: the newest, and the previous one in case of damage
