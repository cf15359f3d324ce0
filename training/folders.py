from common.files import new_folder  # noqa: F401
