# Installs into a folder of the build tree and builds outside.c against that,
# once through pkg-config and once through find_package; runs both, and the
# installed program.
#
# Needs: BUILD, SOURCE, GENERATOR, CC, LIBDIR; FLAGS, a list, for both programs.
set(work ${BUILD}/tests/install)
set(prefix ${work}/prefix)
file(REMOVE_RECURSE ${work}/prefix ${work}/by_find_package ${work}/by_pkg_config
     ${work}/cc.log)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status
                  OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status STREQUAL "0")
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command}: ${status}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

function(expect text in whose)
  string(FIND "${in}" "${text}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "${whose}: expected \"${text}\" in: ${in}")
  endif()
endfunction()

# outside.c learns: its loss falls from about 0.7 to nearly nothing.
function(check program whose)
  run(${program})
  if(NOT output MATCHES "^step 0: loss ([0-9.]+)\n.*step 100: loss ([0-9.]+)\n$")
    message(FATAL_ERROR "${whose} something else was printed: ${output}")
  endif()
  if(NOT (CMAKE_MATCH_1 GREATER 0.3 AND CMAKE_MATCH_2 LESS 0.03))
    message(FATAL_ERROR "${whose} the loss did not fall: ${output}")
  endif()
endfunction()

run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})

set(ENV{PKG_CONFIG_PATH} ${prefix}/${LIBDIR}/pkgconfig)
run(pkg-config --cflags --libs aquatint)
separate_arguments(options UNIX_COMMAND "${output}")
run(${CC} -std=c11 -Wall -Wextra -Werror ${FLAGS} ${SOURCE}/outside.c
    -o ${work}/by_pkg_config ${options} -lm -Wl,-rpath,${prefix}/${LIBDIR})
check(${work}/by_pkg_config "through pkg-config")

list(JOIN FLAGS " " flags)
run(${CMAKE_COMMAND} -G ${GENERATOR} -S ${SOURCE} -B ${work}/by_find_package
    -D CMAKE_C_COMPILER=${CC} -D CMAKE_PREFIX_PATH=${prefix}
    -D "CMAKE_C_FLAGS=${flags}")
run(${CMAKE_COMMAND} --build ${work}/by_find_package)
check(${work}/by_find_package/outside "through find_package")

# The program finds header and models where they were installed: a compiler
# that writes down what it is asked for shows it.
file(WRITE ${work}/cc "#!/bin/sh\necho \"$@\" >>${work}/cc.log\nexec ${CC} \"$@\"\n")
file(CHMOD ${work}/cc PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
set(ENV{CC} ${work}/cc)
run(${prefix}/bin/aquatint --version)
expect("aquatint 0." "${output}" "the installed program")
run(${prefix}/bin/aquatint info ${prefix}/share/aquatint/models/ddpm_unet.c)
expect("ddpm_unet: " "${output}" "the installed program")
file(READ ${work}/cc.log asked)
expect("-I${prefix}/" "${asked}" "compiling a model")
