# What both daemons' units have in common: they own nothing, see little, and may do less.
# `devices`: device nodes the service may open besides the harmless ones; none hides all of them.
# `compiles`: an engine in it makes machine code while it runs (CUDA, torch), which needs memory that
# is written and then executed, and settings of the scheduler.
{
  devices ? [ ],
  compiles ? false,
}:
{
  DynamicUser = true;
  UMask = "0077";

  # Files: the system is read-only, homes are gone, what is left are the service's own directories.
  ProtectSystem = "strict";
  ProtectHome = true;
  PrivateTmp = true;
  PrivateMounts = true;
  RemoveIPC = true;

  # Devices. With PrivateDevices a GPU is hidden, so an allow-list takes its place.
  PrivateDevices = devices == [ ];
  DevicePolicy = "closed";
  DeviceAllow = devices;

  # Privileges.
  CapabilityBoundingSet = "";
  AmbientCapabilities = "";
  NoNewPrivileges = true;
  PrivateUsers = true;
  RestrictSUIDSGID = true;
  RestrictRealtime = true;
  RestrictNamespaces = true;
  LockPersonality = true;
  MemoryDenyWriteExecute = !compiles;

  # The kernel.
  ProtectClock = true;
  ProtectControlGroups = true;
  ProtectHostname = true;
  ProtectKernelLogs = true;
  ProtectKernelModules = true;
  ProtectKernelTunables = true;
  ProtectProc = "invisible";
  # Engines look up the processor and the memory in /proc.
  ProcSubset = if compiles then "all" else "pid";
  RestrictAddressFamilies = [
    "AF_INET"
    "AF_INET6"
    "AF_UNIX"
  ];
  SystemCallArchitectures = "native";
  SystemCallErrorNumber = "EPERM";
  SystemCallFilter = [
    "@system-service"
    (if compiles then "~@privileged" else "~@privileged @resources")
  ];
}
