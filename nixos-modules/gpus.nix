# Which NVIDIA devices a service may open.
{ lib }:
let
  # Kinds of device nodes, by their names in /proc/devices; older drivers call a GPU "frontend".
  shared = [
    "char-nvidiactl"
    "char-nvidia-uvm"
    "char-nvidia-caps"
  ];
  everything = shared ++ [
    "char-nvidia"
    "char-nvidia-frontend"
  ];
in
{
  type = lib.types.either (lib.types.enum [
    "all"
    "none"
  ]) (lib.types.listOf lib.types.ints.unsigned);

  devices =
    choice:
    if choice == "all" then
      everything
    else if choice == "none" || choice == [ ] then
      [ ]
    else
      shared ++ map (number: "/dev/nvidia${toString number} rw") choice;
}
