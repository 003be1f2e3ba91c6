# As much of NixOS as our modules write to, all of it loosely typed.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  loose = default: type: mkOption { inherit default type; };
  attributes = loose { } (types.attrsOf types.anything);
  strings = loose [ ] (types.listOf types.str);

  unit = types.submodule {
    freeformType = types.attrsOf types.anything;
    options = {
      after = strings;
      description = loose "" types.str;
      environment = loose { } (types.attrsOf (types.nullOr types.str));
      reloadTriggers = loose [ ] (types.listOf types.unspecified);
      restartTriggers = loose [ ] (types.listOf types.unspecified);
      serviceConfig = attributes;
      wantedBy = strings;
      wants = strings;
    };
  };
  broken = builtins.filter (one: !one.assertion) config.assertions;
in
{
  options = {
    assertions = loose [ ] (types.listOf types.unspecified);
    boot = attributes;
    environment.etc = loose { } (types.attrsOf types.attrs);
    environment.systemPackages = loose [ ] (types.listOf types.package);
    fileSystems = attributes;
    hardware.nvidia.open = loose false types.bool;
    hardware.nvidia.enabled = loose (builtins.elem "nvidia" config.services.xserver.videoDrivers) types.bool;
    networking = {
      firewall.allowedTCPPorts = loose [ ] (types.listOf types.port);
      hostName = loose "nixos" types.str;
    };
    nixpkgs = attributes;
    services.xserver.videoDrivers = strings;
    system.build = attributes;
    system.stateVersion = loose "" types.str;
    systemd.services = loose { } (types.attrsOf unit);
    systemd.units = attributes;
    systemd.tmpfiles.rules = strings;
    users.groups = attributes;
    users.users = attributes;
    virtualisation = attributes;
    warnings = strings;
  };

  config.systemd.units = lib.mapAttrs' (
    name: service:
    lib.nameValuePair "${name}.service" {
      unit = pkgs.runCommand "unit-${name}.service" { } (builtins.toJSON service.serviceConfig);
    }
  ) config.systemd.services;

  config.system.build.toplevel =
    if broken == [ ] then
      pkgs.runCommand "nixos-system-${config.networking.hostName}" { } ""
    else
      throw ("\nFailed assertions:\n" + lib.concatMapStrings (one: "- ${one.message}\n") broken);
}
