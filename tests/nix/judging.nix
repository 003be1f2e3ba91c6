# One case of cases.nix against what the modules really say of it.
{ lib, evaluate }:
name: case:
let
  hardware = {
    boot.loader.grub.device = "/dev/sda";
    fileSystems."/" = {
      device = "/dev/sda1";
      fsType = "ext4";
    };
    nixpkgs.config.allowUnfree = true;
    system.stateVersion = "26.05";
  };
  inherit
    (evaluate {
      imports = [
        hardware
        case.module
      ];
    })
    config
    ;
  failing = map (one: one.message) (lib.filter (one: !one.assertion) config.assertions);
  units = lib.mapAttrs (_: unit: unit.serviceConfig) (
    lib.filterAttrs (name: _: name == "cortex" || name == "neuron") config.systemd.services
  );
  # What a system would need of our options, forced as far as it goes.
  forced = {
    inherit failing;
    files = lib.concatMapAttrs (_: service: service.files or { }) {
      cortex = lib.optionalAttrs config.services.cortex.enable config.services.cortex;
      neuron = lib.optionalAttrs config.services.neuron.enable config.services.neuron;
    };
    options = builtins.toJSON (
      map (service: removeAttrs service [ "package" ] // { package = service.package.outPath; }) [
        config.services.cortex
        config.services.neuron
      ]
    );
    units = builtins.toJSON units;
  };
  tried = builtins.tryEval (builtins.deepSeq forced forced);
  expected = case.failing or [ ];
  begins =
    lib.length failing == lib.length expected
    && lib.all (start: lib.any (lib.hasPrefix start) failing) expected;
in
{
  right = if case.refused or false then !tried.success else tried.success && begins;
  refused = !tried.success;
  failing = if tried.success then failing else [ ];
  files = if tried.success then forced.files else { };
}
