"""The grant types of `POST /oauth/token`, one file each."""
