# Installs into a folder of the build tree and builds outside.c against that,
# once through pkg-config and once through find_package; runs both.
#
# Needs: BUILD, SOURCE, GENERATOR, CC, LIBDIR; FLAGS, a list, for both programs.
set(work ${BUILD}/tests/install)
set(prefix ${work}/prefix)
file(REMOVE_RECURSE ${work}/prefix ${work}/by_find_package ${work}/by_pkg_config)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status
                  OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status STREQUAL "0")
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command}: ${status}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

function(check program)
  run(${program})
  if(NOT output STREQUAL "no mistakes\n")
    message(FATAL_ERROR "${program} printed something else: ${output}")
  endif()
endfunction()

run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})

set(ENV{PKG_CONFIG_PATH} ${prefix}/${LIBDIR}/pkgconfig)
run(pkg-config --cflags --libs aquatint)
separate_arguments(options UNIX_COMMAND "${output}")
run(${CC} -std=c11 -Wall -Wextra -Werror ${FLAGS} ${SOURCE}/outside.c
    -o ${work}/by_pkg_config ${options} -lm -Wl,-rpath,${prefix}/${LIBDIR})
check(${work}/by_pkg_config)

list(JOIN FLAGS " " flags)
run(${CMAKE_COMMAND} -G ${GENERATOR} -S ${SOURCE} -B ${work}/by_find_package
    -D CMAKE_C_COMPILER=${CC} -D CMAKE_PREFIX_PATH=${prefix}
    -D "CMAKE_C_FLAGS=${flags}")
run(${CMAKE_COMMAND} --build ${work}/by_find_package)
check(${work}/by_find_package/outside)
