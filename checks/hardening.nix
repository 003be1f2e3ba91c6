# systemd itself finds nothing to complain about in the units, and little exposed.
{
  lib,
  machine,
  pkgs,
  ...
}:
let
  # In tenths, as systemd-analyze takes it; each version of it weighs a little differently.
  limits = {
    cortex = 15;
    neuron = 25;
  };
  both = machine [
    (import ../nixos-modules/fleet.nix).atlas
    {
      services.cortex = {
        enable = true;
        neurons.here.endpoint = "http://127.0.0.1:13131";
      };
    }
  ];
  analyze = name: limit: ''
    unit=${both.config.systemd.units."${name}.service".unit}/${name}.service
    SYSTEMD_UNIT_PATH=$unit: systemd-analyze verify --man=no --recursive-errors=no $unit
    systemd-analyze security --offline=true --threshold=${toString limit} $unit
  '';
in
pkgs.runCommand "hardening" { nativeBuildInputs = [ pkgs.systemd ]; } ''
  ${lib.concatStrings (lib.mapAttrsToList analyze limits)}
  touch $out
''
