"""A Raspberry Pi or Jetson without the hardware: an emulated ARM Python behind a real sshd."""
