# The units for Linux without Nix, as text, from the same modules: what is NixOS's own is put aside.
# The program lies in /opt/cortex, its configuration in /etc/cortex.
{
  lib,
  evaluate,
}:
let
  inherit
    (evaluate (
      { lib, pkgs, ... }:
      let
        installed = pkgs.coreutils // {
          outPath = "/opt/cortex";
        };
      in
      {
        services.cortex = {
          enable = true;
          package = installed;
        };
        services.neuron = {
          enable = true;
          package = installed;
          gpus = "all";
        };
        systemd.services = lib.genAttrs [ "cortex" "neuron" ] (_: {
          environment = lib.genAttrs [
            "LD_LIBRARY_PATH"
            "LOCALE_ARCHIVE"
            "PATH"
            "TZDIR"
          ] (_: lib.mkForce null);
          serviceConfig.ExecReload = lib.mkForce "/usr/bin/kill -HUP $MAINPID";
        });
      }
    ))
    config
    ;
  heading = ''
    # Made from the NixOS modules: change those, then run checks/nix-check --write-units.
  '';
  textOf = import ./unit-text.nix { inherit lib; };
in
lib.mapAttrs' (name: service: lib.nameValuePair "${name}.service" (heading + textOf service)) (
  lib.getAttrs [ "cortex" "neuron" ] config.systemd.services
)
